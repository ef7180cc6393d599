"""What is read and what is said about it: files, their documents, cleaned text, and a report for every file."""
