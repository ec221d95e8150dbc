"""Kinds of things that the font draws: food, tools, toys and the animals that nobody drew by hand.

Each is one code point of Noto Color Emoji. None repeats a kind that `animals`, `people` or `things` draw.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .kinds import Kind

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
"""The emoji font, as Debian's package `FONT_PACKAGE` installs it."""
FONT_PACKAGE = "fonts-noto-color-emoji"
FONT_SIZE = 109
"""The only size in which the font has bitmaps."""

_TABLE = """
# glyph  size  zone  hypernyms (- for none)  : nouns, the commonest first

🍌 .50 ground fruit,food : banana
🍇 .50 ground fruit,food : grapes, bunch of grapes
🍓 .45 ground fruit,food : strawberry
🍉 .50 ground fruit,food : watermelon, slice of watermelon
🍍 .60 ground fruit,food : pineapple
🍒 .45 ground fruit,food : cherries, pair of cherries
🍋 .45 ground fruit,food : lemon
🍑 .45 ground fruit,food : peach
🍐 .45 ground fruit,food : pear
🍊 .45 ground fruit,food : tangerine, mandarin, clementine
🥝 .45 ground fruit,food : kiwi, kiwi fruit
🥥 .45 ground fruit,food : coconut
🥭 .45 ground fruit,food : mango
🫐 .45 ground fruit,food : blueberries
🥑 .45 ground vegetable,food : avocado
🫒 .45 ground food : olive, green olive
🍅 .45 ground vegetable,food : tomato
🥕 .50 ground vegetable,food : carrot
🌽 .50 ground vegetable,food : corn, ear of corn, corn on the cob
🥦 .50 ground vegetable,food : broccoli
🍆 .50 ground vegetable,food : eggplant, aubergine
🥔 .45 ground vegetable,food : potato
🥒 .50 ground vegetable,food : cucumber
🥬 .50 ground vegetable,food : lettuce, cabbage
🫑 .45 ground vegetable,food : bell pepper, green pepper
🌶 .50 ground vegetable,food : chili pepper, hot pepper, red pepper
🧅 .45 ground vegetable,food : onion
🧄 .45 ground vegetable,food : garlic, bulb of garlic
🫛 .50 ground vegetable,food : pea pod
🥜 .45 ground food : peanuts
🌰 .45 ground food : chestnut
🍞 .50 ground food : bread, loaf of bread
🥐 .50 ground food : croissant
🥖 .55 ground food : baguette, french bread
🥨 .50 ground food : pretzel
🥯 .50 ground food : bagel
🥞 .55 ground food : pancakes, stack of pancakes
🧇 .55 ground food : waffle
🧀 .50 ground food : cheese, piece of cheese
🥓 .50 ground food : bacon, strips of bacon
🥩 .50 ground food : steak, piece of meat
🍗 .50 ground food : drumstick
🍔 .55 ground food : hamburger, burger, cheeseburger
🍟 .55 ground food : fries, french fries
🍕 .60 ground food : pizza, slice of pizza, pizza slice
🌭 .55 ground food : hot dog
🥪 .55 ground food : sandwich
🌮 .55 ground food : taco
🌯 .55 ground food : burrito, wrap
🍳 .55 ground food : fried egg, frying pan
🥚 .45 ground food : egg
🍿 .55 ground food : popcorn, box of popcorn
🍣 .50 ground food : sushi
🍤 .50 ground food : fried shrimp
🍜 .55 ground food : noodles, bowl of noodles, ramen
🍝 .55 ground food : spaghetti, plate of spaghetti, pasta
🍚 .50 ground food : rice, bowl of rice
🍲 .55 ground food : soup, stew, pot of food
🥗 .55 ground food : salad, bowl of salad
🥟 .45 ground food : dumpling
🧈 .50 ground food : butter
🥫 .50 ground food : canned food, tin can, can of food
🧂 .50 ground - : salt shaker, salt
🍦 .55 ground dessert,food : ice cream, ice cream cone
🍩 .50 ground dessert,food : donut, doughnut
🍪 .45 ground dessert,food : cookie, biscuit
🧁 .50 ground dessert,food : cupcake, muffin
🥧 .50 ground dessert,food : pie
🍮 .50 ground dessert,food : custard, pudding, flan
🍫 .50 ground dessert,food : chocolate, chocolate bar, bar of chocolate
🍬 .45 ground dessert,food : candy, sweet
🍭 .50 ground dessert,food : lollipop
🍯 .50 ground food : honey, honey pot, jar of honey
🍷 .55 ground drink : wine, glass of wine, red wine
🍸 .55 ground drink : cocktail, martini
🍹 .55 ground drink : tropical drink, fruit punch
🍺 .55 ground drink : beer, mug of beer
🥛 .50 ground drink : milk, glass of milk
🥤 .55 ground drink : soda, soft drink
🧋 .55 ground drink : bubble tea, milk tea
🧃 .50 ground drink : juice box, juice
🍵 .50 ground drink : green tea, tea, bowl of tea
🫖 .50 ground - : teapot
🥄 .50 ground - : spoon
🔪 .55 ground tool : knife, kitchen knife
🏺 .65 ground - : vase, amphora

🐒 .85 ground animal : monkey
🦍 1.10 ground animal : gorilla, ape
🦧 1.00 ground animal : orangutan
🦏 1.10 ground animal : rhino, rhinoceros
🦛 1.10 ground animal : hippo, hippopotamus
🦬 1.05 ground animal : bison, buffalo
🐆 .90 ground animal : leopard, cheetah
🦙 1.00 ground animal : llama, alpaca
🫏 1.00 ground animal : donkey
🫎 1.00 ground animal : moose
🐗 .75 ground animal : boar, wild boar
🦝 .65 ground animal : raccoon
🦔 .55 ground animal : hedgehog, porcupine
🦦 .65 ground animal : otter
🦥 .80 ground animal : sloth
🦫 .65 ground animal : beaver
🦨 .65 ground animal : skunk
🦡 .65 ground animal : badger
🐹 .55 ground animal : hamster
🐼 .70 ground animal : panda
🐨 .70 ground animal : koala
🦘 1.00 ground animal : kangaroo
🦄 .90 ground animal : unicorn
🐉 1.20 ground animal : dragon
🦕 1.30 ground animal : dinosaur, brontosaurus
🦖 1.25 ground animal : t-rex, tyrannosaurus
🐊 .90 ground animal : crocodile, alligator
🦎 .60 ground animal : lizard, gecko
🐍 .65 ground animal : snake
🦇 .60 sky animal : bat
🦅 .80 sky bird,animal : eagle, hawk
🦃 .80 ground bird,animal : turkey
🐓 .75 ground bird,animal : rooster
🪿 .75 ground bird,animal : goose
🦢 .75 water bird,animal : swan
🦩 .85 ground bird,animal : flamingo
🦚 .85 ground bird,animal : peacock
🦜 .65 ground bird,animal : parrot
🦤 .75 ground bird,animal : dodo
🦭 .80 ground sea animal,animal : seal, sea lion
🐬 .90 water sea animal,animal : dolphin
🦈 .95 water sea animal,animal : shark
🐡 .60 water sea animal,animal : pufferfish, blowfish
🦑 .70 water sea animal,animal : squid
🪼 .65 water sea animal,animal : jellyfish
🦞 .60 ground sea animal,animal : lobster
🦐 .50 ground sea animal,animal : shrimp, prawn
🐚 .45 ground - : seashell, shell
🪸 .65 water - : coral
🦪 .50 ground food : oyster
🐛 .50 ground insect,animal : caterpillar
🐜 .45 ground insect,animal : ant
🐝 .45 sky insect,animal : bee, honeybee
🐞 .45 ground insect,animal : ladybug, ladybird
🦗 .50 ground insect,animal : cricket, grasshopper
🦟 .45 sky insect,animal : mosquito
🪲 .45 ground insect,animal : beetle
🪳 .45 ground insect,animal : cockroach
🪱 .45 ground animal : worm, earthworm
🕷 .50 ground animal : spider
🕸 .60 ground - : spider web, cobweb
🦂 .50 ground animal : scorpion

🌴 1.50 ground plant : palm tree, palm
🌻 .80 ground plant : sunflower
🌷 .70 ground plant : tulip
🌹 .70 ground plant : rose, red rose
🪴 .70 ground plant : potted plant, house plant
🍀 .50 ground plant : clover, four leaf clover
🍁 .50 ground plant : maple leaf, autumn leaf
🌾 .70 ground plant : wheat, ear of wheat

🚑 1.10 ground vehicle : ambulance
🚒 1.10 ground vehicle : fire truck, fire engine
🚓 1.00 ground vehicle : police car
🚕 1.00 ground vehicle : taxi, cab
🏎 .90 ground vehicle : race car, racing car
🛴 .80 ground vehicle : scooter, kick scooter
🛵 .90 ground vehicle : moped, motor scooter
🛹 .50 ground toy : skateboard
🛼 .55 ground toy : roller skate
🛷 .60 ground vehicle : sled, sledge
🚢 1.30 water vehicle : ship, cruise ship
🛶 .90 water vehicle : canoe, kayak
🛸 .90 sky vehicle : ufo, flying saucer
🛰 .80 sky - : satellite
🚠 .90 sky vehicle : cable car, gondola
🏥 1.40 ground building : hospital
🏫 1.40 ground building : school
🏭 1.40 ground building : factory
🕌 1.50 ground building : mosque
🏯 1.55 ground building : pagoda
🏟 1.40 ground building : stadium, arena
🛖 1.30 ground building : hut
🗼 1.60 ground building : tower, radio tower
⛩ 1.40 ground - : shrine gate, torii
🎡 1.40 ground - : ferris wheel
🎢 1.40 ground - : roller coaster
🎠 1.00 ground - : carousel horse, carousel, merry-go-round
🎪 1.40 ground - : circus, circus tent, big top
⛲ 1.00 ground - : fountain
🗽 1.50 ground - : statue of liberty, statue
🌋 1.50 ground - : volcano
⛽ .85 ground - : gas pump, fuel pump
🚦 .85 ground - : traffic light, stoplight
🛑 .75 ground - : stop sign
🚧 .75 ground - : barrier, roadblock

🎹 .70 ground instrument : piano, piano keyboard
🎺 .70 ground instrument : trumpet
🎷 .75 ground instrument : saxophone
🎻 .75 ground instrument : violin, fiddle
🪗 .65 ground instrument : accordion
🪕 .75 ground instrument : banjo
🥁 .60 ground instrument : drum
🪘 .65 ground instrument : conga, long drum
🪇 .55 ground instrument : maracas
🔔 .50 ground - : bell
🎤 .55 ground - : microphone
🎧 .50 ground - : headphones
📻 .55 ground - : radio
⚽ .45 ground toy : soccer ball
🏀 .45 ground toy : basketball
🏈 .45 ground toy : american football, rugby ball
🎾 .50 ground - : tennis racket, racket
🏐 .45 ground toy : volleyball
🎳 .60 ground - : bowling pins, bowling
🏓 .50 ground - : ping pong paddle, table tennis paddle
🥊 .50 ground clothes : boxing glove
🎯 .60 ground - : target, dart board, bullseye
🎲 .45 ground toy : die, dice
🧩 .45 ground toy : puzzle piece, jigsaw piece
🧸 .70 ground toy : teddy bear, stuffed bear
🪀 .45 ground toy : yo-yo
🪃 .45 ground toy : boomerang
🪆 .60 ground toy : nesting doll, russian doll
🎮 .50 ground toy : game controller, gamepad
🕹 .55 ground toy : joystick
🎨 .50 ground - : paint palette, palette
🏆 .60 ground - : trophy
🏅 .50 ground - : medal, gold medal

💻 .60 ground - : laptop, computer
📱 .45 ground - : phone, smartphone, mobile phone
☎ .50 ground - : telephone, rotary phone
📷 .50 ground - : camera
📺 .70 ground - : television, tv
🖨 .60 ground - : printer
🖱 .45 ground - : computer mouse
🔋 .45 ground - : battery
🔌 .45 ground - : plug, electric plug
💡 .45 ground - : light bulb, bulb
🔦 .50 ground tool : flashlight, torch
🕯 .50 ground - : candle
🏮 .60 ground - : paper lantern, lantern
⏳ .55 ground - : hourglass, sand timer
⌚ .45 ground - : watch, wristwatch
🧭 .50 ground tool : compass
🔍 .50 ground tool : magnifying glass, magnifier
🔬 .60 ground tool : microscope
🔭 .75 ground tool : telescope
🌡 .55 ground tool : thermometer
💉 .50 ground tool : syringe
💊 .45 ground - : pill, capsule
🔨 .50 ground tool : hammer
🪛 .50 ground tool : screwdriver
🔧 .50 ground tool : wrench, spanner
🪚 .55 ground tool : saw, handsaw
🪓 .55 ground tool : axe, hatchet
✂ .50 ground tool : scissors, pair of scissors
🪜 1.00 ground tool : ladder
🪝 .50 ground tool : hook
🧲 .50 ground tool : magnet
🧰 .60 ground tool : toolbox
🔩 .45 ground - : screw, nut and bolt
⚙ .50 ground - : gear, cogwheel
🔗 .45 ground - : chain, link
🪣 .55 ground - : bucket, pail
🧼 .45 ground - : soap, bar of soap
🧽 .45 ground - : sponge
🪥 .45 ground - : toothbrush
🧻 .45 ground - : toilet paper, roll of paper
🚽 .75 ground - : toilet
🛁 .80 ground - : bathtub, bath
🧹 .70 ground tool : broom
🪞 .75 ground - : mirror
🪟 .70 ground - : window
🚪 1.00 ground - : door
🧱 .50 ground - : bricks
🪨 .55 ground - : rock, stone, boulder
🪵 .55 ground - : log, wood
🔑 .45 ground - : key
🔒 .45 ground - : lock, padlock
🧺 .60 ground - : basket, laundry basket
🛒 .75 ground - : shopping cart
💼 .50 ground - : briefcase
🧳 .65 ground - : suitcase
👜 .55 ground - : handbag, purse
🪙 .45 ground - : coin, gold coin
💰 .55 ground - : money bag, bag of money
✉ .50 ground - : envelope, letter
📦 .55 ground - : package, parcel, cardboard box
📫 .75 ground - : mailbox, letterbox
📰 .50 ground - : newspaper
📜 .50 ground - : scroll
📎 .45 ground - : paperclip
📏 .50 ground tool : ruler
📌 .45 ground - : pushpin, thumbtack
✏ .50 ground tool : pencil
🗑 .65 ground - : trash can, wastebasket
🧵 .45 ground - : thread, spool of thread
🧶 .45 ground - : yarn, ball of yarn
🪶 .50 ground - : feather
🦴 .45 ground - : bone
🦷 .45 ground - : tooth
🪺 .55 ground - : nest, bird nest
🏹 .65 ground tool : bow and arrow
🛡 .60 ground - : shield
🗡 .60 ground tool : sword, dagger
💣 .50 ground - : bomb
🔥 .70 ground - : fire, flames
🎃 .55 ground - : pumpkin, jack-o'-lantern
👻 .70 ground - : ghost
🎅 .80 ground - : santa claus, santa
🤡 .70 ground - : clown
👽 .65 ground - : alien
💀 .55 ground - : skull
🗿 .85 ground - : stone head, moai
❤ .50 sky - : heart, red heart
🌈 .90 sky - : rainbow
⚡ .60 sky - : lightning bolt, lightning
☄ .65 sky - : comet, meteor
⚓ .60 ground - : anchor
🌍 .60 ground - : globe, planet earth
💎 .45 ground - : diamond, gem
💄 .45 ground - : lipstick
💍 .45 ground - : ring, diamond ring
👑 .50 ground clothes : crown
👓 .50 ground clothes : glasses, eyeglasses
🕶 .50 ground clothes : sunglasses
👟 .50 ground clothes : sneaker, running shoe
👠 .50 ground clothes : high heel, high-heeled shoe
👢 .55 ground clothes : boot
👡 .50 ground clothes : sandal
👗 .70 ground clothes : dress
👘 .75 ground clothes : kimono
👙 .55 ground clothes : bikini
👕 .60 ground clothes : t-shirt, tee
👖 .70 ground clothes : jeans, pants, trousers
🩳 .55 ground clothes : shorts
🧥 .70 ground clothes : coat, jacket
🧣 .55 ground clothes : scarf
🧦 .50 ground clothes : socks, pair of socks
🧤 .50 ground clothes : gloves, pair of gloves
👔 .60 ground clothes : shirt and tie, necktie
🪖 .50 ground clothes : helmet, army helmet
🪭 .55 ground - : fan, hand fan, folding fan
"""


def _nouns(text: str) -> frozenset[str]:
    return frozenset(" ".join(noun.split()) for noun in text.split(","))


PLURAL_NOUNS = _nouns(
    """grapes, cherries, blueberries, peanuts, pancakes, fries, french fries, noodles, maracas, headphones,
    scissors, bricks, flames, glasses, eyeglasses, sunglasses, jeans, pants, trousers, shorts, socks,
    gloves, bowling pins, strips of bacon"""
)
"""Nouns of the table that are plural already: they take no "a"."""
MASS_NOUNS = _nouns(
    """corn, corn on the cob, broccoli, lettuce, garlic, bread, french bread, cheese, bacon, popcorn, sushi,
    ramen, spaghetti, pasta, rice, soup, stew, salad, butter, salt, chocolate, candy, honey, ice cream,
    custard, pudding, canned food, wine, red wine, beer, milk, soda, juice, tea, green tea, bubble tea, milk
    tea, fruit punch, wheat, coral, wood, soap, lightning, thread, yarn, toilet paper, fire, bowling, planet
    earth, santa, santa claus"""
)
"""Nouns of the table that are neither counted nor take "a"."""


def _row(line: str) -> Kind:
    head, _, nouns = line.partition(" : ")
    glyph, size, zone, hypernyms = head.split(maxsplit=3)
    names = tuple(noun.strip() for noun in nouns.split(","))
    more = () if hypernyms == "-" else tuple(hypernyms.split(","))
    return Kind(names[0], None, names, more, zone=zone, size=float(size), glyph=glyph)


def _rows(table: str) -> tuple[Kind, ...]:
    return tuple(_row(line) for line in table.splitlines() if line and not line.startswith("#"))


KINDS: tuple[Kind, ...] = _rows(_TABLE)
"""Every kind that the font draws."""


@cache
def _font() -> ImageFont.FreeTypeFont:
    if not FONT.is_file():
        message = f"no emoji font at {FONT}: install the Debian package {FONT_PACKAGE}"
        raise FileNotFoundError(message)
    return ImageFont.truetype(str(FONT), FONT_SIZE)


@cache
def _picture(glyph: str) -> Image.Image:
    image = Image.new("RGBA", (180, 180), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((20, 20), glyph, font=_font(), embedded_color=True)
    box = image.getchannel("A").getbbox()
    if box is None:
        message = f"{FONT} draws nothing for {glyph!r}"
        raise ValueError(message)
    return image.crop(box)


def glyph_image(kind: Kind) -> Image.Image:
    """Fetch the font's picture of `kind`: RGBA, cropped to what shows; shared, so do not draw on it."""
    return _picture(kind.glyph)
