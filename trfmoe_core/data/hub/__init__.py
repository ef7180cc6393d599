"""The Hugging Face hub: data sets that are downloaded once, files of tokenizers, and the switch to stay offline."""
