"""A folder or file of weights in, numbers out. Knows no service and no registry."""
