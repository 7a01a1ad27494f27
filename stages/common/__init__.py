"""What every stage needs: parameters, the data set's file, geometry, errors, files."""
