"""Images shown in the terminal itself: which protocol it speaks, and what is written in it."""
