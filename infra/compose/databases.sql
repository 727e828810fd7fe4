create database ledger;
create database lake;
