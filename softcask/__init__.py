"""softcask: soft targets, distilled once and kept in cask."""
