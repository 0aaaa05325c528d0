"""A page that is served on this machine while its run grows."""
