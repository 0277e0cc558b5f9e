"""Videos: frames in, frames out."""
