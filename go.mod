module github.com/thaw-project/thaw

go 1.26
