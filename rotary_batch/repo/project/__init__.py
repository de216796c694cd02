"""What the files of a project say of building, testing and entering it.  They are read as text; nothing is run."""
