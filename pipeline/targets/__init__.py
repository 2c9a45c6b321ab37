"""Members' logits, a rule and a temperature: soft targets, made when read. numpy only."""
