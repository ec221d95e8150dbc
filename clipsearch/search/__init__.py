"""How an index answers. So far only which pictures stand for which others."""
