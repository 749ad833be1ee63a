"""What every command that shows something shares: tables that fit a line, amounts in words."""
