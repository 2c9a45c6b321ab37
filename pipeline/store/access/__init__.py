"""Where objects lie: one interface to disks and object stores, retries, errors that say what to do."""
