"""A local page on which a person looks at recorded episodes and corrects their labels."""
