"""Small networks, one for each kind of thing that people's networks do."""
