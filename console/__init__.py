"""What every program shares: flags, help, messages, starting and stopping."""
