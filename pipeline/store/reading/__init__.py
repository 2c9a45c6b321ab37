"""From a sealed store to rows by number: what is mapped, fetched, verified, kept and gathered."""
