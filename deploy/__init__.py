"""What builds and renders the files of this directory."""
