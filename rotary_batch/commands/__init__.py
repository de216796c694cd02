"""What each command does, apart from how it is typed and how its answer is printed.

Knows how the floors below fit together; knows nothing of Typer or rich.  Every function returns plain
data that the command line prints as a table or as JSON.
"""
