"""Where rows come from: files, data sets of the Hub, and data that comes with packages; a loader for each kind."""
