"""What the services share that speak HTTP. Only they import this package: it needs BlackSheep and uvicorn."""
