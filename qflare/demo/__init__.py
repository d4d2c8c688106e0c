"""The demonstration: a server, devices in processes of their own, and one run, watched by the doors that all use."""
