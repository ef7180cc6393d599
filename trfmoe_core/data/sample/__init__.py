"""Sample data of three owners, made from what every Python installation carries."""
