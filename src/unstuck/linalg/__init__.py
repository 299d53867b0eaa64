"""Linear algebra by products alone: a matvec goes in, numbers with error bars come out. Knows no Module."""
