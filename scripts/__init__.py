"""Programs beside the main three; importable, so that tests can use them."""
