"""The main job on real data: a chain in the process and over HTTP, what each costs, and a picture."""
