"""What goes over the wire: heads, bodies and answers."""
