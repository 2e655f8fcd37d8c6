"""One unit of computation that is a plain function call and a served model, proven equal."""
