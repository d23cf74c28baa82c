"""Chapter 16: its experiment, and that its parts are what the text says."""
