"""The routes: native ones, chains and services."""
