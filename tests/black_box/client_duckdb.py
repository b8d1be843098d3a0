"""Makes a Parquet file, or asks one: client_duckdb.py make PATH | ask PATH SQL"""
import glob
import os
import sys

import duckdb
import duckdb_extension_httpfs

package = os.path.dirname(duckdb_extension_httpfs.__file__)
(extension,) = glob.glob(f"{package}/extensions/v{duckdb.__version__}/httpfs.duckdb_extension")
db = duckdb.connect()
# From the package alone: nothing is fetched while the test runs.
db.execute("SET autoinstall_known_extensions = false")
db.execute("SET autoload_known_extensions = false")
db.execute(f"LOAD '{extension}'")

match sys.argv[1:]:
    case ["make", path]:
        db.execute(
            f"""COPY (SELECT i AS id, hash(i) AS noise, hash(i + 7) AS other, hash(i + 9) % 1000 AS bucket,
                             md5(i::VARCHAR) AS label FROM range(4000000) t(i))
                TO '{path}' (FORMAT parquet, COMPRESSION zstd)"""
        )
    case ["ask", path, sql]:
        print(db.execute(sql.replace("$TABLE", f"read_parquet('{path}')")).fetchall())
    case _:
        sys.exit(__doc__)
