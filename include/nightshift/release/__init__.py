"""What is judged against, what is let out, and how it is published and assigned."""
