"""What is kept of a teacher's answers: keys of rows, blocks of values, how they are written, a folder of them."""
