"""What the pages read: each page's rows and the positions of its streams, as they were at one moment."""
