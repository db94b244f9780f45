module example.com/outside
