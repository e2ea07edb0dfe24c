"""The stages of dvc.yaml, one script each: read, call one library function, write, print one line."""
