"""Which data set and layout a folder has, its pairs, and what is wrong with them."""
