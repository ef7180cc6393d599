"""Rules of other systems, registered as votes so that studies can compare with them; no recipe for use names them."""
