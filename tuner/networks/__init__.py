"""Networks: the table of them, how they are built, stored and opened, and the features they give."""
