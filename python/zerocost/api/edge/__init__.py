"""What surrounds the routes: the middleware, authentication, the access log."""
