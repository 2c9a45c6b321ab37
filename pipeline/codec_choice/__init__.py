"""Which codec keeps a teacher's logits: asked for by name, or chosen by budget on a sample of its logits."""
