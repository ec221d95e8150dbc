"""Exchange of vectors with other programs: files of vectors, export from an index, import into one."""
