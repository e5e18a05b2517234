"""What operators see, beside the admin's own pages."""
