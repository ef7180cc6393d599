"""A deployment kit: its folders and files, keys and certificates, and their check."""
