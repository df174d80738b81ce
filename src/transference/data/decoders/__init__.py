"""One kind of modality a file: cells to arrays, with libraries that decode well."""
