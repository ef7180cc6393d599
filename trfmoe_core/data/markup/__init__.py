"""Readers of documents that are markup: web pages, and the zip containers of EPUB, DOCX and ODT. Bytes in, text out."""
