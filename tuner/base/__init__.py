"""What every folder may use: errors, words to choose from, columns, files, signals, this machine."""
