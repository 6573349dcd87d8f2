-- The control plane's database is the server's first one; orders and trades have their own.
CREATE DATABASE oms;
