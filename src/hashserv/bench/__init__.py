"""Load on a hash equivalence server, and how it copes: what ``hashserv bench`` runs."""
